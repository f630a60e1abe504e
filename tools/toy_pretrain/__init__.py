"""How the frozen weights of ``toy/weights`` were trained: ``python -m tools.toy_pretrain``.

Nobody needs to run it: the weights ship with the package. It is here so that they can be checked and changed.
Seeds are fixed. About 45 minutes on two shared CPU cores, about a third of it for each part.
"""
