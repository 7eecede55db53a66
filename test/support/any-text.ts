import fc from "fast-check";

// `fc.string({ unit: "binary" })` lists all of Unicode before its first text, which takes longer than its tests.
const unit = fc
  .oneof(fc.integer({ min: 0, max: 0x7f }), fc.integer({ min: 0, max: 0x10_ff_ff }))
  .map((codePoint) => String.fromCodePoint(codePoint));

/** Any text, half of it ASCII with its control characters; lone surrogates come too. */
export function anyText(options: { readonly maxLength?: number } = {}): fc.Arbitrary<string> {
  return fc.string({ unit, ...options });
}
