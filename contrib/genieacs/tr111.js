"use strict";
// GenieACS extension (config/ext/tr111.js): tells tr111 what CPEs tell GenieACS, and has tr111 wake them. Where it is and
// its token: TR111_API and TR111_TOKEN_FILE in the environment of genieacs-cwmp.
const fs = require("fs");

const API = new URL(process.env.TR111_API || "http://127.0.0.1:8111");
const TOKEN = process.env.TR111_TOKEN_FILE && fs.readFileSync(process.env.TR111_TOKEN_FILE, "utf8").trim();
const client = require(API.protocol === "https:" ? "https" : "http");

/** Asks tr111; an answer that says no is an error with its reason. */
function ask(method, path, body) {
  const headers = { "Content-Type": "application/json" };
  if (TOKEN) headers.Authorization = `Bearer ${TOKEN}`;
  return new Promise((resolve, reject) => {
    const request = client.request(new URL(path, API), { method, headers, timeout: 10000 }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (part) => { text += part; });
      response.on("end", () => {
        const answer = text ? JSON.parse(text) : null;
        if (response.statusCode < 300) resolve(answer);
        else reject(Object.assign(new Error(`tr111: ${answer ? answer.detail : response.statusCode}`), { status: response.statusCode }));
      });
    });
    request.on("timeout", () => request.destroy(new Error("tr111 does not answer")));
    request.on("error", reject);
    request.end(body && JSON.stringify(body));
  });
}

/** The name that GenieACS gives a CPE (DeviceID.ID): OUI-ProductClass-SerialNumber, escaped. */
function deviceId({ manufacturer_oui, product_class, serial_number }) {
  const escape = (text) => [...Buffer.from(text)]
    .map((byte) => (/\w/.test(String.fromCharCode(byte)) && byte < 128 ? String.fromCharCode(byte)
      : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`)).join("");
  return [manufacturer_oui, product_class, serial_number].filter((part) => part).map(escape).join("-");
}

const cpe = (name) => `/v1/cpes/${encodeURIComponent(name)}`;
const wake = (name) => ask("POST", `${cpe(name)}/connection-requests`);
const answer = (promise, callback) => promise.then((value) => callback(null, value), callback);

/** name, UDPConnectionRequestAddress, NATDetected: where a CPE is reached (STUN-41, STUN-44). */
exports.address = ([name, address, natDetected], callback) => answer(
  ask("PUT", `${cpe(name)}/report`, {
    udp_connection_request_address: address,
    nat_detected: natDetected === "" ? null : natDetected === "true" || natDetected === "1",
  }),
  callback,
);

/** The report of a device in JSON (ACS-1). Where its gateway's table is awaited, the gateway is woken to tell it (ACS-5). */
exports.gatewayInfo = ([report], callback) => answer((async () => {
  const { device, gateway } = JSON.parse(report);
  const { result } = await ask("POST", "/v1/reports/gateway-info", { device, gateway });
  // A gateway that is not reached now tells its table by itself when it changes.
  if (result === "pending") await wake(deviceId(gateway)).catch(() => {});
  return result;
})(), callback);

/** The report of a gateway in JSON (ACS-5). */
exports.manageableDevices = ([report], callback) => answer(
  ask("POST", "/v1/reports/manageable-devices", JSON.parse(report)),
  callback,
);

/** name: wakes a CPE from the address and port of the STUN server. */
exports.connectionRequest = ([name], callback) => answer(wake(name), callback);
