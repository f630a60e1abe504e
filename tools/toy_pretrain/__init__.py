"""How the frozen weights of ``toy/weights`` were trained: ``python -m tools.toy_pretrain``.

The weights ship with the package; this is here so that they can be checked and changed. Seeds are fixed. It takes about
45 minutes on two shared CPU cores, a third of it for each part.
"""
