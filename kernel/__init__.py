"""Jupyter kernels that live in containers, and the ``cellwall kernel`` commands that install them.

A kernel runs in a container of its own without a network. Its five sockets are Unix sockets in the container's memory; this side
(session.py) joins them to those that the client knows. jupyter_client reaches it through a provisioner (provisioner.py), clients that
ignore provisioners through ``argv`` (launch.py). May import runtime, jupyter_client, zmq and traitlets; never magics.
"""
