#!/bin/sh
# skin: skin lesions, seven classes, every stage.
# Seeds are the arguments, default 1.
exec "$(dirname "$0")/run.sh" skin medical/skin-ham10000/ham_28_medmnist_form.npz "$@"
