"""Union mounts by hand: AUFS's branch lists, mounted on overlayfs in a container, and what came from where.

``syntax`` reads the list, ``branches`` looks at the folders it names, ``mounting`` puts the union into a container's mount
plan, ``scan`` (in the worker) reads the trees, ``view`` is what a person sees. Source: aufs(5), overlayfs.rst.
"""
