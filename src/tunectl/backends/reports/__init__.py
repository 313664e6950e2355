"""Render the HTML reports of stages and commands, with plots as inline SVG."""
