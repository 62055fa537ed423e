"""The report on a results folder: tables, figures and a page, all made from its files alone."""
