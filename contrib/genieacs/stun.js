// GenieACS provision: has tr111 know a CPE, and sets STUN in the CPE. For a preset on a channel of its own, without
// preconditions, with the arguments: STUN server of tr111 as the CPEs reach it, and its port (3478 if there is none).
//
// ConnectionRequestUsername and -Password are those that GenieACS set; until it has set them, this waits. In the CPE, nothing
// is set that tr111 does not know.
const [server, port = 3478] = args;
const daily = Date.now(86400000);

const text = (parameter) => (parameter.value && parameter.value[0] != null ? String(parameter.value[0]) : "");

const id = declare("DeviceID.ID", { value: 1 });
const roots = ["InternetGatewayDevice.ManagementServer", "Device.ManagementServer"].map((management) => ({
  management,
  stun: declare(`${management}.STUNEnable`, { path: daily }),
  // What GenieACS set: a CPE tells an empty password.
  username: declare(`${management}.ConnectionRequestUsername`, { value: 1 }),
  password: declare(`${management}.ConnectionRequestPassword`, { value: 1 }),
}));
const found = roots.find(({ stun }) => stun.size);
if (!server) log("tr111: stun: give the preset the STUN server as argument");
if (found && server) {
  const { management, username, password } = found;
  const stun = ext("tr111", "provision", text(id), text(username), text(password));
  if (typeof stun === "string") {
    log(`tr111: stun: ${stun}`);
  } else {
    declare(`${management}.STUNServerAddress`, { value: 1 }, { value: server });
    declare(`${management}.STUNServerPort`, { value: 1 }, { value: Number(port) });
    declare(`${management}.STUNUsername`, { value: 1 }, { value: stun.username });
    declare(`${management}.STUNPassword`, { value: 1 }, { value: stun.password });
    declare(`${management}.STUNEnable`, { value: 1 }, { value: true });
  }
}
