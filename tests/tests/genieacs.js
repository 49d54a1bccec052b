"use strict";
// Stands in for genieacs-cwmp: runs provisions and extensions by its rules.
//
// A provision is run again from the start whenever a read needs a commit, and whenever an extension has answered. It sees
// nothing that it did not declare before the last commit. Each commit counts, and so does each level that a wildcard has to
// discover; more than MOST of them are a fault. An extension is a process of its own, which loads its file with the first
// call; an error of it, whatever throws in it and an answer that takes longer than TIMEOUT are faults, and end the session. (The
// time that the process takes to start does not count here, so that a busy machine fails no test.)
//
// Arguments: the directory of the provisions and extensions, and sessions in JSON, which run one after the other: either
// { provision, args, parameters } or { ext }, the latter a call. Prints what each set and logged, and its fault.
const { fork } = require("child_process");
const fs = require("fs");
const path = require("path");
const vm = require("vm");

const MOST = 32; // cwmp.maxCommitIterations
const TIMEOUT = 3000; // EXT_TIMEOUT
const COMMIT = Symbol("commit");
const EXT = Symbol("ext");

/** The process of an extension. */
function extend(file) {
  const jobs = new Set();
  let script;
  process.on("unhandledRejection", (error) => { throw error; });
  process.on("uncaughtException", (error) => {
    for (const job of jobs) process.send([job, error.message, null]);
    jobs.clear();
    process.disconnect();
  });
  process.on("message", ([job, [name, ...args]]) => {
    jobs.add(job);
    script = script || require(file);
    script[name](args, (error, value) => {
      if (jobs.delete(job)) process.send([job, error ? String(error.message || error) : null, value]);
    });
  });
  process.send("ready");
}

class Extensions {
  constructor(directory) {
    this.directory = directory;
    this.processes = new Map();
    this.jobs = new Map();
  }

  /** The value of a call, or a fault. */
  async run([file, ...call]) {
    if (!this.processes.has(file)) {
      const child = fork(__filename, ["ext", path.join(this.directory, `${file}.js`)], { execArgv: [] });
      this.processes.set(file, child);
      await new Promise((resolve) => child.once("message", resolve));
      child.on("disconnect", () => this.processes.delete(file));
      child.on("message", ([job, fault, value]) => this.settle(job, { fault, value }));
    }
    const job = String(Math.random());
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.settle(job, { fault: "timeout", value: null }), TIMEOUT);
      this.jobs.set(job, { resolve, timer });
      this.processes.get(file).send([job, call]);
    });
  }

  settle(job, outcome) {
    if (!this.jobs.has(job)) return;
    const { resolve, timer } = this.jobs.get(job);
    this.jobs.delete(job);
    clearTimeout(timer);
    resolve(outcome);
  }

  /** Ends the processes when they have nothing more to do. */
  end() {
    for (const child of this.processes.values()) child.disconnect();
  }
}

/** One session of a CPE that has these parameters. */
class Session {
  constructor(parameters) {
    this.parameters = parameters;
    /** Declarations that were committed, by revision. */
    this.revisions = [[]];
    this.discovered = new Set();
    this.found = new Map();
    this.answers = new Map();
    this.result = { fault: null, notification: {}, values: {}, log: [], commits: 0 };
  }

  /** Names of the data model that a path names, objects included. */
  matching(pattern) {
    if (!this.found.has(pattern)) this.found.set(pattern, this.find(pattern));
    return [...this.found.get(pattern)];
  }

  find(pattern) {
    const wanted = pattern.split(".");
    const found = new Set();
    for (const name of Object.keys(this.parameters)) {
      const segments = name.split(".").slice(0, wanted.length);
      if (segments.length === wanted.length && wanted.every((part, at) => part === "*" || part === segments[at])) {
        found.add(segments.join("."));
      }
    }
    return found;
  }

  /** What a provision sees of a parameter at a revision. */
  see(name, attribute, revision) {
    const covers = ({ pattern }) => this.matching(pattern) && this.found.get(pattern).has(name);
    if (!this.revisions[revision].some((one) => one.attributes.has(attribute) && covers(one))) return undefined;
    if (attribute !== "value" || !(name in this.parameters)) return undefined;
    return [name in this.result.values ? this.result.values[name] : this.parameters[name], "xsd:string"];
  }

  commit(declarations) {
    this.revisions.push(declarations);
    this.result.commits += 1;
    for (const { pattern, values } of declarations) {
      if (!this.discovered.has(pattern)) {
        this.discovered.add(pattern);
        this.result.commits += pattern.split(".").filter((part) => part === "*").length;
      }
      if ("notification" in values) this.result.notification[pattern] = values.notification;
      for (const name of this.matching(pattern)) if ("value" in values) this.result.values[name] = values.value;
    }
    if (this.result.commits > MOST) this.result.fault = "too_many_commits";
  }

  /** Runs the script once: what stopped it, what it declared and what it logged. */
  attempt(script, args) {
    const session = this;
    const last = this.revisions.length - 1;
    const state = { revision: 0, isCommitted: true, declarations: [], log: [], call: null };
    const commit = () => {
      state.revision += 1;
      state.isCommitted = true;
      if (state.revision > last) throw COMMIT;
    };
    const wrapper = (pattern, attributes, names) => {
      const read = (work) => {
        if (!state.isCommitted) commit();
        const isDeclared = session.revisions[state.revision].some((one) => one.pattern === pattern) || names;
        return work(names || (isDeclared ? session.matching(pattern) : []));
      };
      const made = { *[Symbol.iterator]() { for (const name of read((found) => found)) yield wrapper(pattern, attributes, [name]); } };
      const get = (key, work) => Object.defineProperty(made, key, { get: () => read(work) });
      get("path", (found) => found[0]);
      get("size", (found) => found.length || undefined);
      for (const attribute of attributes) {
        get(attribute, (found) => (found.length ? session.see(found[0], attribute, state.revision) : undefined));
      }
      return made;
    };
    const context = vm.createContext({
      args,
      commit,
      declare(pattern, timestamps, values) {
        const attributes = new Set(Object.keys({ ...timestamps, ...values }).filter((name) => name !== "path"));
        state.isCommitted = false;
        state.declarations.push({ pattern, attributes, values: values || {} });
        return wrapper(pattern, attributes, null);
      },
      ext(...call) {
        const texts = call.map(String);
        const key = `${state.revision}: ${JSON.stringify(texts)}`;
        if (session.answers.has(key)) return session.answers.get(key);
        state.call = { key, texts };
        throw EXT;
      },
      log(message) {
        if (state.revision === last) state.log.push(message);
      },
    });
    vm.runInContext("{ const now = Date.now(); Date.now = (step) => (step ? now - (now % step) : now); }", context);
    try {
      script.runInContext(context);
      return { ...state, end: null };
    } catch (end) {
      if (end !== COMMIT && end !== EXT) throw end;
      return { ...state, end };
    }
  }

  async run(script, args, extensions) {
    for (;;) {
      const { end, declarations, log, call } = this.attempt(script, args);
      if (end === EXT) {
        const { fault, value } = await extensions.run(call.texts);
        if (fault) this.result.fault = fault;
        this.answers.set(call.key, value);
      } else {
        this.result.log.push(...log);
        this.commit(declarations);
      }
      if (this.result.fault || end === null) return this.result;
    }
  }
}

async function main(directory, sessions) {
  const extensions = new Extensions(directory);
  const results = [];
  for (const { provision, args, parameters, ext } of sessions) {
    const script = provision && `"use strict";(function(){\n${fs.readFileSync(path.join(directory, provision), "utf8")}\n})();`;
    results.push(ext ? await extensions.run(ext)
      : await new Session(parameters).run(new vm.Script(script), args || [], extensions));
  }
  extensions.end();
  console.log(JSON.stringify(results));
}

if (process.argv[2] === "ext") extend(process.argv[3]);
else main(process.argv[2], JSON.parse(process.argv[3]));
