# shellcheck shell=bash disable=SC2034
# The folder that contains LibriSpeech/. The recipe downloads the parts that are missing
# there. A variable LIBRISPEECH of the environment takes precedence.
LIBRISPEECH=downloads
