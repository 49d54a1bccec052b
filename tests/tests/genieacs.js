"use strict";
// Runs the provision of a directory on the parameters of a session, as GenieACS does: again from the start whenever an
// extension has answered. Prints what it set and logged.
const fs = require("fs");
const path = require("path");
const vm = require("vm");

const [directory, parameters] = [process.argv[2], JSON.parse(process.argv[3])];
const script = new vm.Script(fs.readFileSync(path.join(directory, "provision.js"), "utf8"));
const extensions = { tr111: require(path.join(directory, "tr111.js")) };
const answers = new Map();

class Asked extends Error {}

function matching(pattern) {
  const wanted = pattern.split(".");
  const names = Object.keys(parameters).map((name) => name.split(".").slice(0, wanted.length));
  const found = names.filter((name) => name.length === wanted.length && name.every((part, at) => wanted[at] === "*" || wanted[at] === part));
  return [...new Set(found.map((name) => name.join(".")))];
}

function run() {
  const session = { notification: {}, log: [] };
  let asked = null;
  const context = {
    declare(pattern, _, values) {
      if (values && "notification" in values) session.notification[pattern] = values.notification;
      const found = matching(pattern).map((name) => ({ path: name, value: name in parameters ? [parameters[name], "xsd:string"] : undefined }));
      return { ...found[0], size: found.length || undefined, [Symbol.iterator]: () => found[Symbol.iterator]() };
    },
    ext(...call) {
      const key = JSON.stringify(call.map(String));
      if (answers.has(key)) return answers.get(key);
      asked = { key, call: call.map(String) };
      throw new Asked();
    },
    log: (message) => session.log.push(message),
  };
  try {
    script.runInContext(vm.createContext(context));
  } catch (error) {
    if (!(error instanceof Asked)) throw error;
    const [file, name, ...rest] = asked.call;
    extensions[file][name](rest, (failure, answer) => {
      if (failure) throw failure;
      answers.set(asked.key, answer);
      run();
    });
    return;
  }
  console.log(JSON.stringify(session));
}

run();
