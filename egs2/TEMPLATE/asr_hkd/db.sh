# shellcheck shell=bash disable=SC2034
# The folder of your corpus, as an absolute path. local/data.sh reads it. A variable
# CORPUS of the environment takes precedence.
CORPUS=
