"""The container shell kernel: a Jupyter kernel that keeps one container and one shell in it (bash, dash or busybox's ash).

The kernel is a process of this machine; in the container runs nothing of ours but the shell. It needs no Python there. It speaks
Jupyter's messages itself (messages.py) and waits for everything in one loop (loop.py), so that an interrupt, a cell's output and
an answer to ``read`` are never behind one another.

What reaches the shell, and what comes back, goes through named pipes in a folder that the container sees read-only at /run/cellwall
(folder.py). The shell reads its command lines from there and has nothing on its standard streams; a cell is a file that it sources
with its terminal as input and output. So a prompt, an answer that nobody took, or a program that garbles the terminal can't be taken
for a command or for a status.

    kernel.py        Jupyter's requests          box.py         the container and the shell's process in it
    cells.py         one cell, start to end      shell.py       command lines and their statuses
    completion.py    names behind a cursor       terminal.py    the cell's terminal
    inspection.py    what ``?`` shows            reading.py     whether a command waits for input
    completeness.py  may Enter run it            output.py      bytes to text and pictures (display.py), with a bound
    own.py           %layers and the like

Imports pyzmq and jupyter_client (both come with ipykernel), and cellwall.runtime.
"""
