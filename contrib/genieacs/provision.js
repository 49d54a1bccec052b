// GenieACS provision: tells tr111 what a CPE tells GenieACS. For a preset on a channel of its own, on the events 1 BOOT,
// 2 PERIODIC, 4 VALUE CHANGE and 6 CONNECTION REQUEST, without preconditions. What a CPE does not have is passed over.
//
// Each read behind a declaration is a commit, and a session has 32 (cwmp.maxCommitIterations). So there are two, however many
// rows a table has: what is there, and everything that is there.
const now = Date.now();
const daily = Date.now(86400000);
const OFF_OR_ON = { notification: 1 };
const ACTIVE = { notification: 2 };

const text = (parameter) => (parameter.value && parameter.value[0] != null ? String(parameter.value[0]) : "");

const id = declare("DeviceID.ID", { value: 1 });
const own = {
  manufacturer_oui: declare("DeviceID.OUI", { value: 1 }),
  product_class: declare("DeviceID.ProductClass", { value: 1 }),
  serial_number: declare("DeviceID.SerialNumber", { value: 1 }),
};
const roots = ["InternetGatewayDevice", "Device"].map((root) => ({
  info: `${root}.GatewayInfo`,
  management: `${root}.ManagementServer`,
  hasAddress: declare(`${root}.ManagementServer.UDPConnectionRequestAddress`, { path: daily }),
  hasGateway: declare(`${root}.GatewayInfo.SerialNumber`, { path: daily }),
  hasTable: declare(`${root}.ManagementServer.ManageableDeviceNumberOfEntries`, { path: daily }),
}));
const { info, management, hasAddress, hasGateway, hasTable } =
  roots.find((root) => root.hasAddress.size || root.hasGateway.size || root.hasTable.size) || roots[0];
const [address, gateway, table] = [hasAddress.size, hasGateway.size, hasTable.size].map(Boolean);

// Part 2: where it is reached (STUN-40, STUN-41, STUN-44). tr111 knows the CPE under its DeviceID.ID.
const reached = {};
if (address) {
  for (const name of ["UDPConnectionRequestAddress", "NATDetected"]) {
    declare(`${management}.${name}`, OFF_OR_ON, ACTIVE);
    reached[name] = declare(`${management}.${name}`, { value: now });
  }
}

// Part 1, a device: the gateway that it names (ACS-1).
const named = {};
if (gateway) {
  declare(`${info}.*`, OFF_OR_ON, ACTIVE);
  named.manufacturer_oui = declare(`${info}.ManufacturerOUI`, { value: now });
  named.product_class = declare(`${info}.ProductClass`, { value: now });
  named.serial_number = declare(`${info}.SerialNumber`, { value: now });
}

// Part 1, a gateway: its table, whole (ACS-5).
let entries, rows;
if (table) {
  declare(`${management}.ManageableDeviceNumberOfEntries`, OFF_OR_ON, ACTIVE);
  entries = declare(`${management}.ManageableDeviceNumberOfEntries`, { value: now });
  rows = declare(`${management}.ManageableDevice.*.*`, { path: now, value: now });
}

/** The texts of an identity. */
function read(parameters) {
  const identity = {};
  for (const name of Object.keys(parameters)) identity[name] = text(parameters[name]);
  return identity;
}

/** Says what tr111 did not take; that it does not know every CPE is no news. */
function tell(what, result) {
  if (String(result).startsWith("failed")) log(`tr111: ${what}: ${result}`);
}

if (address) {
  const { UDPConnectionRequestAddress: told, NATDetected: detected } = reached;
  tell("address", ext("tr111", "address", text(id), text(told), text(detected)));
}

if (gateway) {
  const result = ext("tr111", "gatewayInfo", JSON.stringify({ device: read(own), gateway: read(named) }));
  log(`association: ${result}`);
}

if (table) {
  const names = { ManufacturerOUI: "manufacturer_oui", ProductClass: "product_class", SerialNumber: "serial_number" };
  const devices = new Map();
  for (const parameter of rows) {
    const [instance, name] = parameter.path.split(".").slice(-2);
    if (!names[name]) continue;
    if (!devices.has(instance)) devices.set(instance, { manufacturer_oui: "", product_class: "", serial_number: "" });
    devices.get(instance)[names[name]] = text(parameter);
  }
  tell("table", ext("tr111", "manageableDevices", JSON.stringify({
    gateway: read(own), number_of_entries: Number(text(entries)), devices: [...devices.values()], active_notification: true,
  })));
}
