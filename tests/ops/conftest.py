from ..interpreter import quicken_interpreter

quicken_interpreter()
