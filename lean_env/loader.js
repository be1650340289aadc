// Runs the embedded Lean (the patched lean.js) under Node with nothing of the host in reach but the library.
//
//   node [flags] loader.js serve   PACKAGE LINKED WORKER          requests on fd 0, verdicts on fd 1, a JSON object a line
//   node [flags] loader.js compile PACKAGE LINKED WORKER MODULE   WORKER/MODULE.lean -> WORKER/MODULE.olean
//
// PACKAGE holds lib/, the library's .olean files; LINKED the patched lean.js, the linked lean.wasm and its symbols; WORKER
// this file and the worker's own .lean and .olean files. In serve mode Lean sees: /lean/lib and /lean/worker, both read-only; an empty
// environment; no network; and two devices, /dev/request and /dev/verdict, which the worker opens at its start and then
// removes by opening /dev/seal. What Lean or a candidate prints goes nowhere.
'use strict';
const fs = require('fs');
const path = require('path');

const [mode, packageDir, linkedDir, workerDir, moduleName] = process.argv.slice(2);
const SHADOW_STACK = 256 * 1024 * 1024; // bytes of wasm memory set aside for main()'s own stack
const STACK_GUARD = 64 * 1024; // its lowest bytes: whatever recurses as deep as that goes on into other memory
const EROFS = 69, EIO = 29; // errno numbers of Emscripten's libc

for (const name of Object.keys(process.env)) delete process.env[name];
for (const name of ['WebSocket', 'EventSource', 'fetch', 'XMLHttpRequest']) delete globalThis[name];

function writeAll(fd, bytes) {
  let done = 0;
  while (done < bytes.length) {
    try { done += fs.writeSync(fd, bytes, done); } catch (error) { if (error.code !== 'EAGAIN') throw error; pause(1); }
  }
}

const clock = new Int32Array(new SharedArrayBuffer(4));
function pause(milliseconds) { Atomics.wait(clock, 0, 0, milliseconds); }

const inbox = Buffer.alloc(1 << 16);
function readSome(limit) { // blocks until there is something; 0 at end of input
  for (;;) {
    try { return fs.readSync(0, inbox, 0, Math.min(limit, inbox.length), null); } catch (error) {
      if (error.code === 'EOF') return 0;
      if (error.code !== 'EAGAIN') throw error;
      pause(2);
    }
  }
}

function shared(file) { // between threads
  const bytes = fs.readFileSync(file);
  const copy = new SharedArrayBuffer(bytes.length);
  new Uint8Array(copy).set(bytes);
  bytes.buffer.transfer(0); // frees it now
  return copy;
}

function instantiate(imports, done) {
  const bytes = fs.readFileSync(path.join(linkedDir, 'lean.wasm'));
  const module = new WebAssembly.Module(bytes);
  bytes.buffer.transfer(0); // V8 has its own copy
  done(new WebAssembly.Instance(module, imports), module);
}

function mountReadOnly(FS, NODEFS) {
  const refuse = () => { throw new FS.ErrnoError(EROFS); };
  for (const op of ['setattr', 'mknod', 'rename', 'unlink', 'rmdir', 'symlink']) NODEFS.node_ops[op] = refuse;
  const open = NODEFS.stream_ops.open;
  NODEFS.stream_ops.open = (stream) => { if ((stream.flags & 3) !== 0) refuse(); return open(stream); };
  NODEFS.stream_ops.write = refuse;
  for (const dir of ['/lean', '/lean/bin', '/lean/lib', '/lean/worker', '/made']) FS.mkdir(dir);
  FS.writeFile('/lean/bin/lean', ''); // Lean asks for the directory of its own binary
  FS.mount(NODEFS, { root: path.join(packageDir, 'lib') }, '/lean/lib');
  FS.mount(NODEFS, { root: workerDir }, '/lean/worker');
}

function addDevices(FS) {
  let major = 70;
  const device = (name, ops) => {
    const id = FS.makedev(major++, 0);
    FS.registerDevice(id, ops);
    FS.mkdev('/dev/' + name, id);
  };
  const plain = (stream) => { stream.seekable = false; };
  device('request', { open: plain, read(stream, buffer, offset, length) {
    let count;
    try { count = readSome(length); } catch { throw new FS.ErrnoError(EIO); }
    buffer.set(inbox.subarray(0, count), offset);
    return count;
  } });
  device('verdict', { open: plain, write(stream, buffer, offset, length) {
    if (globalThis.LEAN_MODULE.stackOverflowed()) { // what Lean says now may come from memory that its stack ran over
      writeAll(2, Buffer.from('Error: the stack ran over its end\n'));
      process.exit(1);
    }
    writeAll(1, Buffer.from(buffer.slice(offset, offset + length))); // a copy: wasm memory is shared between threads
    return length;
  } });
  device('seal', { open() { for (const name of ['request', 'verdict', 'seal']) FS.unlink('/dev/' + name); } });
}

const compiling = mode === 'compile';
let line = [];
function shown(byte) { // Lean's own output while compiling: the only time anyone reads it
  if (byte !== null && byte !== 10) { line.push(byte); return; }
  writeAll(2, Buffer.from(line.concat(10)));
  line = [];
}
const silent = () => {};

globalThis.LEAN_MODULE = {
  thisProgram: '/lean/bin/lean',
  arguments: compiling
    ? ['-j1', '-o', `/made/${moduleName}.olean`, `/lean/worker/${moduleName}.lean`]
    : ['-j1', '--run', '/lean/worker/Main.lean'],
  shadowStack: SHADOW_STACK,
  stackGuard: STACK_GUARD,
  instantiateWasm: instantiate,
  symbols: shared(path.join(linkedDir, 'symbols')),
  stdin: () => null,
  stdout: compiling ? shown : silent,
  stderr: compiling ? shown : silent,
  print: silent,
  printErr: silent,
  onAbort(what) { // at once: what is thrown instead is printed with its source line, all of lean.js
    writeAll(2, Buffer.from(`Error: aborted: ${what}\n`));
    process.exit(1);
  },
  mountLibrary(FS, NODEFS, ENV) {
    mountReadOnly(FS, NODEFS);
    ENV.LEAN_PATH = '/lean/lib:/lean/worker';
    if (!compiling) addDevices(FS);
    return '/lean/worker'; // where Lean stands: it wants its input below
  },
  onExit() {
    if (!compiling) return;
    const made = `/made/${moduleName}.olean`;
    const FS = globalThis.LEAN_MODULE.FS;
    if (FS.analyzePath(made).exists) fs.writeFileSync(path.join(workerDir, `${moduleName}.olean`), FS.readFile(made));
  },
};
if (!compiling) for (const name of ['log', 'info', 'warn', 'error', 'debug', 'trace']) console[name] = silent;

require(path.join(linkedDir, 'lean.js'));
