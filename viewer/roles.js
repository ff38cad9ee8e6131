import { Layout } from "./layout.js";

const VECTOR = "C, (HWC), (WC), (DHWC), (?)";
const CONV = "WIO, HWIO, DHWIO, WI(GO), HWI(GO), DHWI(GO)";
const RECURRENT = "IU, (HWC)U, (WC)U, (DHWC)U, (?)U, FIU, F(HWC)U, F(WC)U, F(DHWC)U, F(?)U";
const withGates = (gates, layouts) => layouts.split(", ").map((text) => `${text.replace("U", "(GU)")} G=${gates}`).join(", ");
const lstm = (layouts) => withGates("ifco", layouts);
const gru = (layouts) => withGates("zrh", layouts);

/** Section 13: each role's neutral layouts, none for what no layer computes with. */
export const ROLES = new Map(
  Object.entries({
    "conv.kernel": CONV,
    "conv.bias": "O",
    "conv_transpose.kernel": "WOI, HWOI, DHWOI, WO(GI), HWO(GI), DHWO(GI)",
    "conv_transpose.bias": "O",
    "depthwise.kernel": "WCM, HWCM",
    "depthwise.bias": "O",
    "separable.depthwise_kernel": "WCM, HWCM",
    "separable.pointwise_kernel": "WIO, HWIO",
    "separable.bias": "O",
    "dense.kernel": "IO, (HWC)O, (WC)O, (DHWC)O, (?)O",
    "dense.bias": "O",
    "embedding.table": "IO",
    "batch_norm.gamma": VECTOR,
    "batch_norm.beta": VECTOR,
    "batch_norm.mean": VECTOR,
    "batch_norm.variance": VECTOR,
    "batch_norm.std": VECTOR,
    "layer_norm.gamma": VECTOR,
    "layer_norm.beta": VECTOR,
    "instance_norm.gamma": VECTOR,
    "instance_norm.beta": VECTOR,
    "prelu.alpha": "C, WC, 1C, HWC, 11C, 1WC, H1C, DHWC, 111C, (?)",
    "rnn.kernel": RECURRENT,
    "rnn.recurrent_kernel": "IU, FIU",
    "rnn.bias": "U, BU, FU, FBU",
    "rnn.input_bias": "U, FU",
    "rnn.recurrent_bias": "U, FU",
    "lstm.kernel": lstm(RECURRENT),
    "lstm.recurrent_kernel": lstm("IU, FIU"),
    "lstm.bias": lstm("U, BU, FU, FBU"),
    "lstm.input_bias": lstm("U, FU"),
    "lstm.recurrent_bias": lstm("U, FU"),
    "lstm.peephole": withGates("ifo", "U, FU"),
    "gru.kernel": gru(RECURRENT),
    "gru.recurrent_kernel": gru("IU, FIU"),
    "gru.bias": gru("U, BU, FU, FBU"),
    "gru.input_bias": gru("U, FU"),
    "gru.recurrent_bias": gru("U, FU"),
    "conv_lstm.kernel": "HWI(GO) G=ifco",
    "conv_lstm.recurrent_kernel": "HWI(GO) G=ifco",
    "conv_lstm.bias": "(GO) G=ifco",
    "locally_connected.kernel": "X(WI)O, (YX)(HWI)O",
    "locally_connected.bias": "XO, YXO",
    "maxout.kernel": "MIO, M(HWC)O, M(WC)O, M(DHWC)O, M(?)O",
    "maxout.bias": "MO",
    "highway.kernel": "IO",
    "highway.carry_kernel": "IO",
    "highway.bias": "O",
    "highway.carry_bias": "O",
    optimizer: "",
    moving_average: "",
    counter: "",
    other: "",
  }).map(([role, texts]) => [role, texts.split(", ").filter(Boolean).map(Layout.parse)]),
);

/** Whether a tensor of a role can have a layout: one with the letters of a neutral layout, and with none but its gates. */
export function canHave(role, layout) {
  const gates = [...(layout.gates ?? "")];
  return ROLES.get(role).some(
    (neutral) => lettersOf(neutral) === lettersOf(layout) && gates.every((gate) => neutral.gates?.includes(gate)),
  );
}

function lettersOf(layout) {
  return [...layout.axes.join("")].filter((letter) => letter !== "1").sort().join("");
}
