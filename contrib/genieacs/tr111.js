"use strict";
// GenieACS extension (config/ext/tr111.js): tells tr111 what CPEs tell GenieACS, provisions CPEs in tr111, and has tr111 wake
// them. It reads from the environment of genieacs-cwmp, genieacs-nbi and genieacs-ui:
//   TR111_API          URL of the HTTP interface of tr111; http://127.0.0.1:8111 if there is none
//   TR111_TOKEN_FILE   file with its token
//   TR111_SECRET_FILE  file with the secret that STUN passwords are derived from, for `provision`
//
// A function that fails faults the whole channel of its preset, for 300 s and more. So every function resolves within LIMIT,
// whatever tr111 does: with "unknown" where tr111 does not know the CPE, and with "failed: REASON" otherwise. No value is null,
// so that `EXT(...) IS NOT NULL` is true in every expression.
const crypto = require("crypto");
const fs = require("fs");
const http = require("http");
const https = require("https");

// Milliseconds that a function takes at most; GenieACS waits for 3 s (EXT_TIMEOUT).
const LIMIT = 1000;
// Milliseconds within which a gateway whose table is awaited is woken once.
const QUIET = 60000;
// Gateways that are remembered as woken.
const MOST = 10000;
// Fewest bytes of the secret: 16 random ones are out of reach for guessing.
const SECRET = 16;

/** An answer that says no. */
class Refused extends Error {
  constructor(status, reason) {
    super(reason);
    this.status = status;
  }
}

/** Asks tr111 and gives its answer, until the time `until`. The files are read each time, because tokens change. */
function ask(until, method, path, body) {
  const url = new URL(path, process.env.TR111_API || "http://127.0.0.1:8111");
  const headers = { "Content-Type": "application/json" };
  if (process.env.TR111_TOKEN_FILE) headers.Authorization = `Bearer ${fs.readFileSync(process.env.TR111_TOKEN_FILE, "utf8").trim()}`;
  return new Promise((resolve, reject) => {
    const request = (url.protocol === "https:" ? https : http).request(url, { method, headers, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (part) => { text += part; });
      response.on("error", reject);
      response.on("end", () => {
        clearTimeout(timer);
        let answer = null;
        try {
          answer = text ? JSON.parse(text) : null;
        } catch (error) {
          if (response.statusCode < 300) reject(new Error("what answers is not tr111"));
        }
        if (response.statusCode < 300) resolve(answer);
        else reject(new Refused(response.statusCode, (answer && answer.detail) || `status ${response.statusCode}`));
      });
    });
    // Both a server that is silent and one that answers bit by bit.
    const timer = setTimeout(() => {
      reject(new Error("tr111 does not answer in time"));
      request.destroy();
    }, Math.max(0, until - Date.now()));
    request.on("error", (error) => {
      clearTimeout(timer);
      reject(error);
    });
    request.end(body && JSON.stringify(body));
  });
}

/** The form that GenieACS calls, of a function of arguments and the time by which it has to answer. */
function extension(work) {
  return (args, callback) => {
    const told = (error) => (error.status === 404 ? "unknown" : `failed: ${error.message}`);
    Promise.resolve(Date.now() + LIMIT).then((until) => work(args, until)).catch(told).then((value) => callback(null, value));
  };
}

/** DeviceID.ID, as GenieACS makes it: OUI-ProductClass-SerialNumber, escaped, without the class where it is empty. */
function deviceId({ manufacturer_oui: oui, product_class: productClass, serial_number: serialNumber }) {
  const escape = (text) => text.split("").map((unit) => (/^\w$/.test(unit) ? unit
    : Array.from(Buffer.from(unit), (byte) => `%${byte.toString(16).toUpperCase()}`).join(""))).join("");
  return [oui, productClass, serialNumber].filter((part) => part).map(escape).join("-");
}

/** An identity whose ProductClass is missing is the one whose ProductClass is empty. */
const identity = (device) => ({ ...device, product_class: device.product_class || "" });

const cpe = (name) => `/v1/cpes/${encodeURIComponent(name)}`;

/** When gateways were woken, in milliseconds, by their names. */
const woken = new Map();

/** Wakes a gateway unless it was woken within QUIET, by this process or by another one. */
async function wakeOnce(name) {
  const now = Date.now();
  if (woken.has(name) && now - woken.get(name) < QUIET) return;
  for (const [other, at] of woken) if (woken.size >= MOST || now - at >= QUIET) woken.delete(other);
  woken.set(name, now);
  const { last_timestamp: last } = await ask(now + LIMIT, "GET", cpe(name));
  if (last !== null && Math.abs(now - last * 1000) < QUIET) return;
  await ask(Date.now() + LIMIT, "POST", `${cpe(name)}/connection-requests`);
}

/** name, UDPConnectionRequestAddress, NATDetected: where a CPE is reached (STUN-41, STUN-44). Resolves with "reported". */
exports.address = extension(async ([name, address, natDetected], until) => {
  await ask(until, "PUT", `${cpe(name)}/report`, {
    udp_connection_request_address: address,
    nat_detected: natDetected === "" ? null : natDetected === "true" || natDetected === "1",
  });
  return "reported";
});

/**
 * The report of a device in JSON (ACS-1). Where its gateway's table is awaited, the gateway is woken to tell it (ACS-5), once
 * a minute. Resolves with the result: "unchanged", "validated", "unvalidated", "pending", "refused" or "withdrawn".
 */
exports.gatewayInfo = extension(async ([report], until) => {
  const { device, gateway } = JSON.parse(report);
  const body = { device: identity(device), gateway: gateway && identity(gateway) };
  const { result } = await ask(until, "POST", "/v1/reports/gateway-info", body);
  // The session does not wait for it. A gateway that is not reached tells its table by itself when it changes.
  if (result === "pending") wakeOnce(deviceId(gateway)).catch(() => {});
  return result;
});

/** The report of a gateway in JSON (ACS-5). Resolves with "reported". */
exports.manageableDevices = extension(async ([report], until) => {
  const { gateway, devices, ...rest } = JSON.parse(report);
  const body = { gateway: identity(gateway), devices: devices.map(identity), ...rest };
  await ask(until, "POST", "/v1/reports/manageable-devices", body);
  return "reported";
});

/** name: wakes a CPE from the address and port of the STUN server. Resolves with "sent". */
exports.connectionRequest = extension(async ([name], until) => {
  await ask(until, "POST", `${cpe(name)}/connection-requests`);
  return "sent";
});

/** Adds a CPE to tr111, or gives it other credentials. An empty one is refused: tr111 keeps what it has. */
async function upsert(until, { stun_username: name, ...credentials }) {
  const needed = ["stun_password", "connection_request_username", "connection_request_password"];
  const empty = name ? needed.find((credential) => !credentials[credential]) : "stun_username";
  if (empty) throw new Error(`${empty} is empty`);
  const replace = () => ask(until, "PUT", cpe(name), credentials);
  try {
    await replace();
    return "updated";
  } catch (error) {
    if (error.status !== 404) throw error;
  }
  try {
    await ask(until, "POST", "/v1/cpes", { stun_username: name, ...credentials });
    return "added";
  } catch (error) {
    // Another session of the same CPE was faster.
    if (error.status !== 409) throw error;
  }
  await replace();
  return "updated";
}

/**
 * A CPE in JSON, with stun_username, stun_password, connection_request_username and connection_request_password. Resolves with
 * "added" or "updated"; what was learned of a CPE that is there stays.
 */
exports.upsert = extension(async ([given], until) => upsert(until, JSON.parse(given)));

/**
 * name, ConnectionRequestUsername, ConnectionRequestPassword: has tr111 know a CPE, with a STUNPassword of 128 bits that is
 * derived from the secret and the name, always the same. Resolves with { username, password } for the CPE.
 */
exports.provision = extension(async ([name, username, password], until) => {
  if (!process.env.TR111_SECRET_FILE) throw new Error("TR111_SECRET_FILE is not set");
  const secret = fs.readFileSync(process.env.TR111_SECRET_FILE, "utf8").trim();
  if (secret.length < SECRET) throw new Error(`the secret has fewer than ${SECRET} bytes; make one with: openssl rand -hex 32`);
  const derived = crypto.createHmac("sha256", secret).update(`STUNPassword ${name}`).digest("hex").slice(0, 32);
  await upsert(until, {
    stun_username: name,
    stun_password: derived,
    connection_request_username: username,
    connection_request_password: password,
  });
  return { username: name, password: derived };
});
