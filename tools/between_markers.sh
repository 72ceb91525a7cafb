#!/bin/sh
# between_markers: replaces what a Markdown file holds between two markers.
#
#   tools/between_markers.sh FILE NAME TEXT    <!-- numbers:NAME --> TEXT <!-- /numbers:NAME -->
#
# A file without the markers is an error: a number that nobody shows is not generated.
file=$1 name=$2
TEXT=$3 awk -v name="$name" '
$0 == "<!-- /numbers:" name " -->" { inside = 0; found++ }
!inside { print }
$0 == "<!-- numbers:" name " -->" { inside = 1; found++; print ENVIRON["TEXT"] }
END { exit found != 2 }' "$file" >"$file.new" || {
    rm -f "$file.new"
    echo "$file: no pair of markers numbers:$name, each alone on its line" >&2
    exit 65
}
cat "$file.new" >"$file" && rm -f "$file.new"
