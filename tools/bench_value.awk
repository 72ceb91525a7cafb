# bench_value: what a row of `bench json=FILE` says under a name; "" where it says nothing. Rows are
# flat objects, one per line, without commas inside the values asked for; a shell script puts this
# text before its own awk program.
function value(name,    text) {
    if (!match($0, "\"" name "\":(\"[^\"]*\"|[^,}]*)")) { return "" }
    text = substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3)
    gsub(/"/, "", text)
    return text
}
