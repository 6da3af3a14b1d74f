"""Readers of run folders: a table for the terminal, one HTML file, ``junit.xml``.

``write_report(folder)`` is in :mod:`migrate.report.html`, ``run_table(run, attempts)`` with its
renderings ``rich`` and ``plain`` in :mod:`migrate.report.table`, ``junit(run, attempts)`` in
:mod:`migrate.report.junit`; import the one that is needed, for some are heavy.
"""
