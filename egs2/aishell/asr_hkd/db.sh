# shellcheck shell=bash disable=SC2034
# The folder that contains data_aishell/. If the corpus is not there, the recipe
# downloads it (37 GB while unpacking). A variable AISHELL of the environment takes
# precedence.
AISHELL=downloads
