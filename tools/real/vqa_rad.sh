#!/bin/sh
# vqa_rad: questions about radiology images, answered yes or no, every stage.
# Seeds are the arguments, default 1.
exec "$(dirname "$0")/run.sh" vqa_rad medical/vqa-rad "$@"
