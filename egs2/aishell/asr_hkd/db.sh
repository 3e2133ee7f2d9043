# shellcheck shell=bash disable=SC2034
# Where the corpus is: the folder that has data_aishell/ in it. "downloads": the recipe
# fetches it (37 GB while unpacking). A variable AISHELL of the environment goes first.
AISHELL=downloads
