#!/bin/sh
# breast: breast ultrasound, malignant or benign, every stage.
# Seeds are the arguments, default 1.
exec "$(dirname "$0")/run.sh" breast medical/breast-ultrasound/busi_28_medmnist_form.npz "$@"
