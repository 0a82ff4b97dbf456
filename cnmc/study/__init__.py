"""A study: the runs that one command asks for, whichever engine works on them.

The process that launches them (:mod:`cnmc.study.launch`) and the processes that train
(:mod:`cnmc.study.job`) know of each other by files alone (:mod:`cnmc.study.board`), so that it
makes no difference whether they are one process, several on a machine, or on a cluster.
"""
