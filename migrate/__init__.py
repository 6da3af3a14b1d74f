"""migrate-lab: move real guests between hosts and tell the truth about their outage.

Start reading at :mod:`migrate.attempt`.
"""

__version__ = "0.1.0"
