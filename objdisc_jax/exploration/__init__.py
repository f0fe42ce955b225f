"""The page of `objdisc explore`: pictures drawn of results, a model for visitors, and the page.

`pictures` and `explorer` know nothing of Gradio; `page` alone imports it.
"""
