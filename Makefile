.PHONY: check test demo docs

check:
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	python docs/generate.py --check

test:
	python -m pytest -n 2 -m "not slow"

demo:
	fullbake demo

docs:
	python docs/generate.py
