.PHONY: check test demo

check:
	ruff format --check .
	ruff check .
	mypy

test:
	python -m pytest -n 2 -q

demo:
	fullbake demo
