#!/usr/bin/env python3
"""Test vectors for host/metrics and host/analysis from scikit-learn and SciPy.

Writes tests/data/vectors_metrics.json. Needs numpy, scikit-learn, scipy.
"""
import json
import numpy as np
from scipy.stats import binomtest
from sklearn.linear_model import Ridge
from sklearn.metrics import (accuracy_score, confusion_matrix, precision_recall_fscore_support,
                             roc_auc_score)
from sklearn.preprocessing import StandardScaler

rng = np.random.default_rng(7)


def classify(n, C, missing):
    gold = rng.integers(0, C - missing, n)
    said = np.where(rng.random(n) < 0.6, gold, rng.integers(0, C, n))
    p, r, f, _ = precision_recall_fscore_support(gold, said, average="macro", zero_division=0)
    return dict(C=C, gold=gold.tolist(), predicted=said.tolist(),
                accuracy=accuracy_score(gold, said), precision=p, recall=r, f1=f,
                confusion=confusion_matrix(gold, said, labels=list(range(C))).ravel().tolist())


def medmnist(n, C):
    gold = rng.integers(0, C, n)
    gold[:C] = np.arange(C)
    logits = rng.normal(size=(n, C)) + 1.5 * np.eye(C)[gold]
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    probability = np.round(probability, 2)  # rounding makes ties
    if C == 2:
        auc = roc_auc_score(gold, probability[:, -1])
        acc = accuracy_score(gold, probability[:, -1] > 0.5)
    else:
        auc = float(np.mean([roc_auc_score(gold == c, probability[:, c]) for c in range(C)]))
        acc = accuracy_score(gold, probability.argmax(1))
    return dict(C=C, gold=gold.tolist(), probability=probability.ravel().tolist(), auc=auc, acc=acc)


def multilabel(n, C):
    gold = rng.integers(0, 2, (n, C))
    probability = np.round(np.clip(rng.normal(0.3 + 0.4 * gold, 0.3), 0, 1), 2)
    auc = float(np.mean([roc_auc_score(gold[:, c], probability[:, c]) for c in range(C)]))
    acc = float(np.mean([accuracy_score(gold[:, c], probability[:, c] > 0.5) for c in range(C)]))
    return dict(C=C, gold=(gold << np.arange(C)).sum(1).tolist(),
                probability=probability.ravel().tolist(), auc=auc, acc=acc)


def ridge(n, penalty):
    X = np.stack([rng.normal(size=n), rng.normal(2, 3, n), rng.integers(0, 2, n),
                  rng.integers(5, 60, n)], 1)
    y = 0.7 * X[:, 0] - 0.1 * X[:, 1] + 0.01 * X[:, 3] + rng.normal(0, 0.2, n)
    scaler = StandardScaler().fit(X)
    fit = Ridge(alpha=penalty).fit(scaler.transform(X), y)
    return dict(features=X.ravel().tolist(), g=y.tolist(), penalty=penalty,
                prediction=fit.predict(scaler.transform(X)).tolist())


out = dict(
    classify=[classify(60, 5, 0), classify(40, 7, 2), classify(1, 2, 0)],
    medmnist=[medmnist(80, 2), medmnist(90, 4)],
    multilabel=[multilabel(70, 3)],
    mcnemar=[dict(b=b, c=c, p=binomtest(min(b, c), b + c, 0.5).pvalue if b + c else 1.0)
             for b, c in [(0, 0), (0, 1), (3, 9), (5, 5), (112, 7), (400, 430)]],
    ridge=[ridge(50, 1.0)],
)
with open("tests/data/vectors_metrics.json", "w") as f:
    json.dump(out, f)
