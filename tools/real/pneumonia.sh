#!/bin/sh
# pneumonia: chest radiographs, normal or pneumonia, every stage.
# Seeds are the arguments, default 1.
exec "$(dirname "$0")/run.sh" pneumonia medical/pneumoniamnist/pneumoniamnist_balanced.npz "$@"
