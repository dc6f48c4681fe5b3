"""The container runtime: images, storage, cgroups, security, the launcher, and the engine that joins them.

Never imports IPython, ipykernel, jupyter_client or traitlets.
"""
