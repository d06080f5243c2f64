// Touches a new page of memory in each of many different stacks, and says which functions it was in: for a test that compares.
//
// stacks.js TOUCHES: waits for a line on its input, touches, prints one JSON object {"stack": pages}, where a stack is what memtrail should call its
// functions, outermost first, joined by " > "; then waits for the end of its input. Each way says its own name and line.
'use strict';
// Lines of what follows stand in it.
const PAGE = 4096, STACKS = 720;
const touches = +process.argv[2];
const kept = [], inside = [], touched = {};
let view, at = 0, state = 1;

function random(n) { state = (Math.imul(state, 1103515245) + 12345) >>> 0; return (state >>> 16) % n; }

function enter(name, line) { inside.push(`${name} (stacks.js:${line})`); }
function leave() { inside.pop(); }

function touch() {
  const stack = [...inside, 'touch (stacks.js:17)'].join(' > ');
  touched[stack] = (touched[stack] || 0) + 1;
  view[at] = 1;
  at += PAGE;
}

function walk(depth) {
  enter('walk', 24);
  if (depth === 0) touch(); else ways[random(ways.length)](depth - 1);
  leave();
}

function byCall(depth) { enter('byCall', 30); walk(depth); leave(); }
const byArrow = (depth) => { enter('byArrow', 31); walk(depth); leave(); };
const byFunction = function named(depth) { enter('named', 32); walk(depth); leave(); };
class Walker {
  #hidden(depth) { enter('#hidden', 34); walk(depth); leave(); }
  method(depth) { enter('method', 35); this.#hidden(depth); leave(); }
  get größe() { enter('get größe', 36); walk(this.depth); leave(); return 1; }
  static of(depth) { enter('of', 37); const walker = new Walker(depth); walker.method(depth); leave(); return walker; }
  constructor(depth) { enter('Walker', 38); this.depth = depth; leave(); }
}
function byMethod(depth) { enter('byMethod', 40); Walker.of(depth); leave(); }
function byGetter(depth) { enter('byGetter', 41); new Walker(depth).größe; leave(); }
function* generate(depth) { enter('generate', 42); walk(depth); leave(); yield 1; }
function byGenerator(depth) { enter('byGenerator', 43); generate(depth).next(); leave(); }
const ways = [byCall, byArrow, byFunction, byMethod, byGetter, byGenerator];

function main() {
  enter('main', 46);
  for (let number = 0; number < touches; number++) {
    state = number % STACKS + 1;
    walk(1 + number % 10);
  }
  leave();
}

// Memory that is not touched yet, and what the walks need besides.
view = new Uint8Array(new SharedArrayBuffer((touches + 1200) * PAGE));
const all = touches;
for (let number = 0; number < 1200; number++) { state = number % STACKS + 1; walk(1 + number % 10); }
for (const stack of Object.keys(touched)) delete touched[stack];
console.log('ready');
let begun = false;
process.stdin.on('data', () => {
  if (begun) return;
  begun = true;
  main();
  console.log(JSON.stringify(touched));
});
process.stdin.on('end', () => process.exit(0));
