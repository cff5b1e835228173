import type { NextConfig } from "next";

// Static files only: the gateway serves `out/` on the same origin as the API.
const config: NextConfig = {
  output: "export",
  trailingSlash: true,
  images: { unoptimized: true },
  reactStrictMode: true,
  poweredByHeader: false,
  devIndicators: false,
};

export default config;
