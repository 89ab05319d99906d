// The phone inside the browser's page: JsSIP over secure WebSocket, a tone for a microphone, ears for the other end's
// tone. It decides nothing: what happens, and a sample each 100 ms, goes to the harness by `toHarness`, each with the
// page's own time (performance.now(), milliseconds of the same clock as CLOCK_MONOTONIC).
window.phone = (() => {
  "use strict";
  const WINDOW_MS = 80, QUIETEST_RMS = 0.0018;  // -55 dBFS
  const speaker = document.getElementById("speaker");
  const tell = (event, detail = {}) => window.toHarness(JSON.stringify({at: performance.now(), event, ...detail}));
  const waiting = (ms) => new Promise((done) => setTimeout(done, ms));

  let options, context, microphone, ua, session, pc, analyser, ear, packets, ticking = false, connections = 0;

  // In a worker: when each packet's frame came out of the network, before the jitter buffer. Passes it on untouched.
  const TAP = `onrtctransform = ({transformer}) => {
    const connection = transformer.options;
    const look = new TransformStream({transform(frame, controller) {
      const about = frame.getMetadata();
      postMessage([connection, performance.timeOrigin + performance.now(), about.sequenceNumber ?? null,
        about.synchronizationSource ?? 0]);
      controller.enqueue(frame);
    }});
    transformer.readable.pipeThrough(look).pipeTo(transformer.writable).catch((e) => postMessage(String(e)));
  };
  postMessage(null);`;
  let tapper;

  // The worker must run before the first packet comes, else that goes past it, and so does all the rest.
  function startTapper() {
    return new Promise((ready) => {
      const worker = new Worker(URL.createObjectURL(new Blob([TAP])));
      worker.onerror = () => ready();
      worker.onmessage = ({data}) => {
        if (data === null) { tapper = worker; ready(); }
        else if (typeof data === "string") tell("complaint", {text: `packets are no longer told one by one: ${data}`});
        else if (packets && data[0] === connections) packets.push([data[1] - performance.timeOrigin, ...data.slice(2)]);
      };
    });
  }

  function start(given) {
    options = given;
    context = new AudioContext();
    const tone = new OscillatorNode(context, {frequency: options.toneHz});
    const gain = new GainNode(context, {gain: 0.25});
    microphone = new MediaStreamAudioDestinationNode(context, {channelCount: 1});
    tone.connect(gain).connect(microphone);
    tone.start();
    ua = new JsSIP.UA({
      sockets: [new JsSIP.WebSocketInterface(options.wss)],
      uri: `sip:${options.user}@${options.domain}`,
      password: options.password,
      register_expires: options.expiresS,
      session_timers: false,
      connection_recovery_min_interval: options.reconnectMinS,
      connection_recovery_max_interval: options.reconnectMaxS,
      user_agent: "pbx-chaos browser",
    });
    ua.on("connected", () => tell("flow_up"));
    ua.on("disconnected", (e) => tell("flow_down", {reason: e.reason || (e.error ? "error" : "closed")}));
    ua.on("registered", () => tell("registered"));
    ua.on("registrationFailed", (e) => tell("register_failed", {reason: e.cause, code: codeOf(e.response)}));
    ua.start();
    return Promise.all([context.resume(), startTapper()]).then(() => ({state: context.state, rate: context.sampleRate}));
  }

  function call(callee) {
    session = ua.call(`sip:${callee}@${options.domain}`, {mediaStream: microphone.stream, pcConfig: {iceServers: []}});
    const own = session, send = session.sendRequest.bind(session);
    // The code of the answer to JsSIP's own BYE.
    session.sendRequest = (method, more = {}) => (method === "BYE" ? send(method, {...more, ...answered("bye_sent")})
      : send(method, more));
    if (session.connection) listenTo(session.connection);
    else session.on("peerconnection", (e) => listenTo(e.peerconnection));
    const on = (event, told) => own.on(event, (e) => own === session && told(e));
    on("progress", (e) => tell("ringing", {code: codeOf(e.response)}));
    on("confirmed", () => tell("confirmed"));
    on("failed", (e) => tell("failed", {by: e.originator, reason: e.cause, code: codeOf(e.message)}));
    on("reinvite", () => tell("reinvite_received"));
    on("update", () => tell("update_received"));
    on("ended", (e) => {
      if (e.originator === "remote") tell("bye_received");
      tell("ended", {by: e.originator, reason: e.cause});
    });
  }

  // Hears, counts and watches this connection from now on, no other.
  function listenTo(connection) {
    const n = ++connections;
    pc = connection;
    analyser = ear = packets = undefined;
    const current = () => pc === connection;
    tap(connection);
    connection.addEventListener("track", (e) => {
      if (current()) hear(e.streams[0] || new MediaStream([e.track]));
    });
    connection.addEventListener("iceconnectionstatechange",
      () => current() && tell("ice", {state: connection.iceConnectionState, connection: n}));
    connection.addEventListener("connectionstatechange",
      () => current() && tell("connection", {state: connection.connectionState, connection: n}));
    if (!ticking) { ticking = true; setInterval(sample, options.sampleMs); }
  }

  // Without it (an older Chromium) packets are only counted by getStats. It has to be there before the first offer: set
  // later, Chromium (156) applies it to the first packet of a sender that the answer does not name, and to no other.
  function tap(connection) {
    if (!tapper || !window.RTCRtpScriptTransform) return;
    packets = [];
    const add = connection.addTrack.bind(connection);
    connection.addTrack = (...track) => {
      const sender = add(...track);
      for (const receiver of connection.getReceivers()) {
        if (!receiver.transform) receiver.transform = new RTCRtpScriptTransform(tapper, connections);
      }
      return sender;
    };
  }

  function hear(stream) {
    speaker.srcObject = stream;  // without a player Chromium does not decode what comes in
    speaker.play().catch((e) => tell("complaint", {text: `player: ${e.message}`}));
    analyser = new AnalyserNode(context, {fftSize: 8192});
    new MediaStreamAudioSourceNode(context, {mediaStream: stream}).connect(analyser);
    ear = new Float32Array(analyser.fftSize);
  }

  // The part of the last 80 ms of sound that lies on the expected tone (Goertzel's bin), 0-1; 0 for silence.
  function share() {
    if (!analyser) return {rms: 0, share: 0};
    analyser.getFloatTimeDomainData(ear);
    const count = Math.round(context.sampleRate * WINDOW_MS / 1000), from = ear.length - count;
    const step = 2 * Math.PI * options.expectHz / context.sampleRate;
    let power = 0, re = 0, im = 0;
    for (let i = from; i < ear.length; i++) {
      const x = ear[i];
      power += x * x; re += x * Math.cos(step * i); im += x * Math.sin(step * i);
    }
    const rms = Math.sqrt(power / count);
    return {rms, share: rms < QUIETEST_RMS ? 0 : 2 * (re * re + im * im) / (count * power)};
  }

  async function sample() {
    const connection = pc;
    const stats = await connection.getStats().catch(() => null);
    if (!stats || connection !== pc) return;
    const now = performance.now(), row = {connection: connections, ...share(), ice: pc.iceConnectionState};
    const since = (stamp) => stamp === undefined ? null : stamp - performance.timeOrigin;
    stats.forEach((r) => {
      if (r.type === "inbound-rtp" && r.kind === "audio") {
        Object.assign(row, {at: since(r.timestamp), received: r.packetsReceived, lost: r.packetsLost, ssrc: r.ssrc,
          last: since(r.lastPacketReceivedTimestamp), jitterMs: (r.jitter || 0) * 1000, energy: r.totalAudioEnergy,
          samples: r.totalSamplesReceived, concealed: r.concealedSamples, discarded: r.packetsDiscarded});
      } else if (r.type === "outbound-rtp" && r.kind === "audio") {
        Object.assign(row, {sent: r.packetsSent});
      } else if (r.type === "transport") {
        Object.assign(row, {dtls: r.dtlsState});
      } else if (r.type === "remote-inbound-rtp") {
        Object.assign(row, {rtt_ms: r.roundTripTime === undefined ? null : r.roundTripTime * 1000,
          fraction_lost: r.fractionLost});
      }
    });
    tell("sample", {...row, packets: packets ? packets.splice(0) : null, at: row.at ?? now});
  }

  // Help, only when the harness asks for it: a re-INVITE with this connection's new offer, or with one of a new
  // PeerConnection (new ICE and DTLS, the same dialog). Nothing here ends the call.
  async function reinvite({fresh = false} = {}) {
    let connection = session.connection, old = null;
    if (fresh) {
      old = pc;
      connection = new RTCPeerConnection({iceServers: []});
      listenTo(connection);
      microphone.stream.getTracks().forEach((track) => connection.addTrack(track, microphone.stream));
    } else if (pc !== connection) connection = pc;
    try {
      await connection.setLocalDescription(await connection.createOffer());
      await gathered(connection);
    } catch (e) {
      return {code: null, reason: `offer: ${e.message}`};
    }
    const answer = await new Promise((done) => {
      const refused = (r) => done({code: codeOf(r), reason: r ? r.reason_phrase : "no answer"});
      tell(fresh ? "new_connection_offered" : "reinvite_offered");
      session.sendRequest("INVITE", {
        extraHeaders: [`Contact: ${session.contact}`, "Content-Type: application/sdp"],
        body: connection.localDescription.sdp,
        eventHandlers: {
          onSuccessResponse: (r) => { session.sendRequest("ACK"); done({code: r.status_code, body: r.body}); },
          onErrorResponse: refused, onDialogError: refused,
          onTransportError: () => done({code: null, reason: "connection lost"}),
          onRequestTimeout: () => done({code: null, reason: "no answer"}),
        },
      });
    });
    if (!answer.body) {
      if (connection.signalingState === "have-local-offer" && !fresh) {
        await connection.setLocalDescription({type: "rollback"}).catch(() => {});
      }
      return answer;
    }
    try {
      await connection.setRemoteDescription({type: "answer", sdp: answer.body});
    } catch (e) {
      return {code: answer.code, reason: `answer: ${e.message}`};
    }
    if (old) old.close();
    return {code: answer.code};
  }

  async function gathered(connection) {
    for (let i = 0; i < 50 && connection.iceGatheringState !== "complete"; i++) await waiting(20);
  }

  function answered(event) {
    const told = (r, reason) => tell(event, {code: codeOf(r), reason});
    return {eventHandlers: {
      onSuccessResponse: (r) => told(r), onErrorResponse: (r) => told(r), onDialogError: (r) => told(r),
      onTransportError: () => told(null, "connection lost"), onRequestTimeout: () => told(null, "no answer"),
    }};
  }

  function bye() {
    if (!session || session.isEnded()) return false;
    session.terminate();
    return true;
  }

  const codeOf = (response) => (response && response.status_code) || null;
  return {start, call, reinvite, bye};
})();
