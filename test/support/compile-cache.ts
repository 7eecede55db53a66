import { join } from "node:path";

/** Where the programs that tests start keep what the compiler made of them: it is most of a start. */
export const compileCache = join(import.meta.dirname, "../../node_modules/.cache/cloudpods-test-compile-cache");
