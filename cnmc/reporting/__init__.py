"""The report: tables, figures and one page, made of the numbers of ``cnmc.analysis``."""
