"""What a container may do: capabilities, the seccomp filter, masked and read-only paths, ``--security-opt``."""
