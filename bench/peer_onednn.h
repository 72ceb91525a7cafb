// peer_onednn: oneDNN 2's matmul as something to be measured against, loaded at run time.
#ifndef JOMED_BENCH_PEER_ONEDNN_H
#define JOMED_BENCH_PEER_ONEDNN_H

#include <stdbool.h>

#include "kernels/dtype.h"

// Loads libdnnl.so.2. False, after one line on stderr, where the library, or its header when this
// program was built, is absent. Later calls only answer.
bool peer_onednn_open(void);

// c (rows,columns) = a (rows,depth) b' with b (columns,depth), all of type t (f32 or bf16),
// row-major. b is brought into oneDNN's own packed form here, once. NULL where oneDNN lacks this
// product on this CPU. a and c are borrowed until _free.
typedef struct PeerOnednn PeerOnednn;
PeerOnednn *peer_onednn_product_new(DType t, int rows, int columns, int depth, void *a, void *b,
                                    void *c);
void peer_onednn_run(void *product);
void peer_onednn_free(PeerOnednn *product);

#endif
