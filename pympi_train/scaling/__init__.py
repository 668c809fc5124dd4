"""How training scales: studies over rank counts, their analysis, models and reports."""
