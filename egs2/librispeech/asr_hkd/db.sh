# shellcheck shell=bash disable=SC2034
# Where the corpus is: the folder that has LibriSpeech/ in it. "downloads": the recipe
# fetches what it needs. A variable LIBRISPEECH of the environment goes first.
LIBRISPEECH=downloads
