// GenieACS provision: for a preset on the events 1 BOOT, 2 PERIODIC, 4 VALUE CHANGE and 6 CONNECTION REQUEST, without
// preconditions. What a CPE does not have is passed over.
const now = Date.now();
const OFF_OR_ON = { notification: 1 };
const ACTIVE = { notification: 2 };

function read(path) {
  const { value } = declare(path, { value: now });
  return value ? String(value[0]) : "";
}

const id = read("DeviceID.ID");
const identity = {
  manufacturer_oui: read("DeviceID.OUI"),
  product_class: read("DeviceID.ProductClass"),
  serial_number: read("DeviceID.SerialNumber"),
};
const root = declare("InternetGatewayDevice.DeviceInfo.SerialNumber", { value: 1 }).size ? "InternetGatewayDevice" : "Device";
const management = `${root}.ManagementServer`;

// Part 2: where it is reached (STUN-40, STUN-41, STUN-44). tr111 knows the CPE under its DeviceID.ID.
declare(`${management}.UDPConnectionRequestAddress`, OFF_OR_ON, ACTIVE);
declare(`${management}.NATDetected`, OFF_OR_ON, ACTIVE);
const address = read(`${management}.UDPConnectionRequestAddress`);
if (address) ext("tr111", "address", id, address, read(`${management}.NATDetected`));

// Part 1, a device: the gateway that it names (ACS-1).
if (declare(`${root}.GatewayInfo.SerialNumber`, { path: now, value: now }).size) {
  declare(`${root}.GatewayInfo.*`, OFF_OR_ON, ACTIVE);
  const gateway = {
    manufacturer_oui: read(`${root}.GatewayInfo.ManufacturerOUI`),
    product_class: read(`${root}.GatewayInfo.ProductClass`),
    serial_number: read(`${root}.GatewayInfo.SerialNumber`),
  };
  const result = ext("tr111", "gatewayInfo", JSON.stringify({ device: identity, gateway }));
  log(`association: ${result}`);
}

// Part 1, a gateway: its table, whole (ACS-5).
if (declare(`${management}.ManageableDeviceNumberOfEntries`, { path: now, value: now }).size) {
  declare(`${management}.ManageableDeviceNumberOfEntries`, OFF_OR_ON, ACTIVE);
  const rows = [];
  for (const row of declare(`${management}.ManageableDevice.*`, { path: now })) {
    rows.push({
      manufacturer_oui: read(`${row.path}.ManufacturerOUI`),
      product_class: read(`${row.path}.ProductClass`),
      serial_number: read(`${row.path}.SerialNumber`),
    });
  }
  const entries = Number(read(`${management}.ManageableDeviceNumberOfEntries`));
  ext("tr111", "manageableDevices", JSON.stringify({
    gateway: identity, number_of_entries: entries, devices: rows, active_notification: true,
  }));
}
