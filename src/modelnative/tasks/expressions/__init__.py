"""Infix expressions, on a calculator or on paper."""
