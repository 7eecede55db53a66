// buf starts plugins without a shell and on any platform; this gives it ts-proto's as a script that
// the pinned Node runs.
import "ts-proto/build/src/plugin.js";
