"""Lean projects as seed data: what LeanDojo traced of one, and what becomes of it.

:mod:`reader` and :mod:`tracer` run in child processes and are the only modules that import LeanDojo, whose import has
side effects; :mod:`traces` starts them. :mod:`context` and :mod:`convert` are pure: they know only the records of
:mod:`traced`.
"""
