"""The kernel's own calls, by ctypes: the only place in cellwall that knows them.

May import the standard library and runtime/errors.py, nothing else. Each wrapper has the kernel's name, takes Python
types, and returns a value or raises SyscallError; none logs, none returns -1.
"""
