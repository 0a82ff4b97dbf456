"""Studies: many runs that one command asks for.

The launching process (:mod:`cnmc.study.launch`) and the jobs (:mod:`cnmc.study.job`) share only
files (:mod:`cnmc.study.board`), so they may be one process, several, or machines of a cluster.
"""
