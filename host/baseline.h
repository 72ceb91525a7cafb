// baseline: answers that need no reader and no retriever training, to hold the others against.
#ifndef JOMED_HOST_BASELINE_H
#define JOMED_HOST_BASELINE_H

#include "dataset.h"

// The most frequent class of train's labelled rows, for every query; ties go to the lower class.
// answers: (Q)   probability: (Q,C), each row the shares of the classes in train
// Without a labelled row: class 0, equal shares. Labels are below C.
void baseline_majority(int *answers, double *probability, const Dataset *train, int Q, int C);

// Vote of the k training rows with the largest cosine to the query (all of them, when fewer are
// labelled). Equal cosines: the lower row comes first. Equal votes: the class whose nearest row
// comes first.
//   train_embeddings: (n,E)   train_labels: (n), -1: the row has no vote   queries: (Q,E)
//   answers: (Q)   probability: (Q,C), the shares of the votes
// Rows need not have length 1; one of length 0 has cosine 0. Dots run over E ascending, in double.
// At least one row is labelled, labels are below C, k >= 1.
// Source: Cover and Hart 1967, "Nearest neighbor pattern classification".
void baseline_neighbours(int *answers, double *probability, const float *train_embeddings,
                         const int *train_labels, int n, const float *queries, int Q, int E, int C,
                         int k);

#endif
