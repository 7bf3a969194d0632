"""Numbered SQL per schema (`<schema>/0001_<what>.sql`), the tables every schema has (`common.sql`), and what applies
them.
"""
