"""What can be looked at: facts of a container or an image, read from the kernel at that moment, as a picture and as text.

A view is a command of the command line and a line magic at once: ``cellwall layers X`` prints its text, ``%layers X`` returns it, and a
notebook shows its HTML. Each is one module of this package, named as the command, with

- ``USAGE``: what stands behind the command's name in its help, such as ``"[OPTIONS] [CONTAINER…]"``; the words there tell completion
  what to offer (CONTAINER, IMAGE, VOLUME, NETWORK);
- ``add_options(parser)``: adds the view's own options to a runtime/cli/parser.py Parser; ``--format`` is there already;
- ``read(engine, said, words)``: the View of what ``words`` name, or an iterator of views, each to be shown in the place of the one
  before it (``--watch``). ``said`` holds the options. It is called in the notebook's process: it reads, takes less than 50 ms, and
  raises errors of runtime/errors.py that say what mends them. An iterator is closed when the user interrupts, and the last view stays.

Their rows, with a summary each, are in runtime/cli/views.py. The facts are frozen dataclasses, the View on top (view.py); numbers carry
their unit in the field's name. ``to_dict`` is made of the fields, so a fact that isn't a field isn't in the data.

How a view looks is the same hand everywhere:

=============  ============================================================================================================
``look.py``    the colours and what they mean, signs, sizes, spaces
``page.py``    HTML: ``page``, ``heading``, ``section``, ``chip``, ``pairs``, ``table``, ``grid``, ``card``, ``folded``, ``note``, ``warning``, ``legend``
``gauge.py``   HTML: ``meter`` (use, peak, limit), ``size_bar``
``tree.py``    ``Node``: a tree that folds in HTML, and as text
``drawing.py`` inline SVG: ``drawing``, ``rectangle``, ``label``, ``line``, and ``plot`` of what went on over time
``plain.py``   the text twin: ``heading``, ``pairs``, ``table``, ``meter``, ``size_bar``, ``plot``, ``more``; all fit the columns that are given
=============  ============================================================================================================

Rules: HTML is the type ``Html``; a ``str`` is escaped wherever it is put in, with its control characters spelled out, so a string from
outside can't do anything. No script, no ``<style>``, no address, no ``id``. An untrusted notebook loses SVG and some styles: what a picture
says stands in HTML or text beside it as well. Colour never says anything alone: a sign, a border or a word says it too. Long
lists are cut by ``cut`` (page.py) with "… and N more"; a usual view has less than 30 kB of HTML.

Imports: the standard library, runtime/errors.py, and for facts what of runtime is needed; nothing of Jupyter.
"""
